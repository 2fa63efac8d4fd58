//! What every log must do.
