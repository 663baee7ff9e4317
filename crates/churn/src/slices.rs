//! Named subsets of rows.
