#![forbid(unsafe_code)]
pub mod publish;
pub mod selection;
