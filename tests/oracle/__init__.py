"""The proof: a naive oracle that re-reads every event for each question, and the engine judged against it."""
