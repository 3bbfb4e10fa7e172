//! Layby: a caching pull-through proxy for container registries.
//!
//! The life of a pull: [`server`] reads a request and [`oci`] gives it a meaning; [`proxy`] decides whether what is asked
//! for is stored, under way or to be fetched, and by what right its repository gets it; [`flight`] fetches it once for
//! all who ask, from [`upstream`] into [`store`]. [`bundle`] carries images in files. [`app`] puts the parts together for [`cli`]. Imports point one way:
//! `server → proxy → {flight, store, upstream} → oci`; all may use [`config`] values, [`runtime`] and [`telemetry`].

pub mod app;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod flight;
pub mod images;
pub mod oci;
pub mod proxy;
pub mod runtime;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
