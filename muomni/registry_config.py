"""How models are registered and promoted: section ``registry`` of params.yaml."""

from typing import Annotated

from pydantic import Field

from muomni.config import Section


class RegistryConfig(Section):
    """Section ``registry``."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_-]+$", description="the registered model; parts are <name>-thinker and so on"
    )
    promote_by: str = Field(description="the figure of metrics/summary.json that decides who is champion")
    higher_is_better: bool = Field(description="whether more of it is better; false for error rates")
    min_gain: float = Field(ge=0, description="by how much a challenger must be better than the champion")
    guards: dict[str, Annotated[float, Field(ge=0)]] = Field(
        description="figures that may not get worse by more than this when a challenger becomes champion"
    )
    components: bool = Field(description="register the parts of the stages, too")
