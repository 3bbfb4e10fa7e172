//! The server on the wire: raw sockets against a fake proxy.

mod admin;
mod administrator;
mod answers;
mod api;
mod connections;
mod errors;
mod fake;
mod files;
mod http2;
mod log;
mod peers;
mod ranges;
mod shutdown;
mod site;
mod tls;
mod wire;

use fake::{Fake, digest_of};
use site::Site;
use wire::Wire;
