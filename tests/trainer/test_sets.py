import pytest

from configs.errors import InputError
from configs.kinds import StrictModel
from trainer.streaming.sets import OneOrMoreSets, SetConfig, SetList, open_sets


class RunConfig(StrictModel):
    crops: SetList
    backgrounds: OneOrMoreSets


@pytest.mark.parametrize(
    "data",
    [
        {"crops": ["a", "b"], "backgrounds": "c"},
        {"crops": [{"place": "a", "weight": 2.0}, {"place": "b", "weight": 1.0}], "backgrounds": ["c", "d"]},
    ],
)
def test_sets_are_written_as_they_were_given(data) -> None:
    config = RunConfig.model_validate(data)
    assert config.model_dump(mode="json") == data
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_set_alone_needs_no_list() -> None:
    config = RunConfig.model_validate({"crops": "a", "backgrounds": {"place": "b", "weight": 2.0}})
    assert config.crops == (SetConfig(place="a"),)
    assert config.model_dump(mode="json") == {"crops": ["a"], "backgrounds": {"place": "b", "weight": 2.0}}


def test_sets_open_with_their_weights(sets, tmp_path) -> None:
    places = [SetConfig(place=str(sets[0]), weight=weight) for weight in (1.0, 0.5)]
    found, weights = open_sets(places, "crops", tmp_path)
    assert [len(each) for each in found] == [30, 30]
    assert weights == [1.0, 0.5]
    assert open_sets([SetConfig(place=str(sets[0]))], "crops", tmp_path)[1] is None


def test_weights_for_some_sets_only_are_refused(sets, tmp_path) -> None:
    places = [SetConfig(place="heavy", weight=1.0), SetConfig(place="plain")]
    with pytest.raises(
        InputError, match=r"^crops: plain: found no weight, wanted one for all sets or for none$"
    ):
        open_sets(places, "crops", tmp_path)
