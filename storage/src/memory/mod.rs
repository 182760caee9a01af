//! The backend in memory: for tests, and the model the others are held against.
