"""The networks of torchvision's SSDs, with its names for their parts: its state dicts load."""

from collections.abc import Sequence

from torch import Tensor, nn

from trainer.multibox.detector import MultiBoxNetwork


class TorchvisionNetwork(MultiBoxNetwork):
    """``backbone``, extra layers included, and ``head``, as `torchvision.models.detection.ssd.SSD` does."""

    class_head = "head.classification_head."

    def __init__(
        self, backbone: nn.Module, head: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.mean, self.std = mean, std

    def maps(self, x: Tensor) -> list[Tensor]:
        """See `MultiBoxNetwork.maps`."""
        return list(self.backbone(x).values())

    def heads(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `MultiBoxNetwork.heads`."""
        values = self.head(maps)
        return values["cls_logits"], values["bbox_regression"]


def num_anchors(ratios: Sequence[Sequence[float]]) -> list[int]:
    """Of a cell of each map: two squares, and two boxes for each ratio."""
    return [2 + 2 * len(own) for own in ratios]
