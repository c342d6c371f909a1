//! Where sealed artifacts live.
