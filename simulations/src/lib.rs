//! Nothing: the simulations are tests, in `tests/simulations`.
