//! The heart: one upstream fetch, many readers, one file.
//!
//! Knows disk and upstream only through the traits of [`ports`], which `proxy/` adapts. Imports `oci` values, `config`
//! values, `runtime` and `telemetry`.

pub mod ports;
