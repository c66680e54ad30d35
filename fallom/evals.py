"""Not part of fallom any more: importing it says what to use."""

raise ImportError(
    "fallom.evals was left out in fallom 0.3: judging answers by a model is a job for batches, and this "
    "package lives inside production processes. Keep fallom==0.2.7 in an environment of its own for "
    "evaluations, or use an evaluation library such as deepeval or ragas.",
    name=__name__,
)
