"""How the report's templates are filled in."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from trainer.reporting.scores import name_of
from trainer.reporting.tables import paper_text


def make_environment() -> Environment:
    """HTML is escaped; a name that is not there is an error."""
    environment = Environment(
        loader=PackageLoader("trainer", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "condition": name_of,
        "paper": paper_text,
        "count": lambda number: f"{number:,.0f}",
        "points": lambda share: "–" if share is None else f"{100 * share:.1f}",
        "slug": lambda text: text.replace(" ", "-"),
    }
    return environment


def duration(seconds: float) -> str:
    """``120 h``, ``2 h 05 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 360_000:
        return f"{whole / 3600:,.0f} h"
    if whole >= 3600:
        return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
