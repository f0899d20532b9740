"""libpq's pipeline mode: `conn.pipeline()`, and executemany on top of it."""

from ._executemany import execute_many as execute_many
from ._executemany import may_pipeline as may_pipeline
from ._pipeline import Pipeline, PipelineResult

__all__ = ["Pipeline", "PipelineResult"]
