//! The way of the distributions `custom` and `helm`: the agent writes the objects themselves.
