"""From a specification to results: jobs, the store and the executors."""
