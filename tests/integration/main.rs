//! Layby as a whole, against registries that do what they are told, over real sockets.

mod fake;
mod support;
