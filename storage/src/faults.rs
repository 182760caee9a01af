//! The fault injector: a backend whose failures a test decides.
