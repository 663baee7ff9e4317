//! Paired bootstrap, over rows and over rows and seeds together.
