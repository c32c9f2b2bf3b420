"""Public data sets as tokenised splits: one file per kind of task, batches for all of them."""
