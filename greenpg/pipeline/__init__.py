"""libpq's pipeline mode: `conn.pipeline()`, and executemany on top of it."""

from ._executemany import execute_many, may_pipeline
from ._pipeline import Pipeline, PipelineResult

__all__ = ["Pipeline", "PipelineResult", "execute_many", "may_pipeline"]
