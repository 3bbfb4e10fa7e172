//! How a configuration is read, section by section.

mod cache;
mod credentials;
mod given;
mod listen;
mod reference;
mod upstreams;
mod warm;
mod whole;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::*;

fn from(text: &str) -> Result<Config, Faults> {
    Config::from_toml(text, &Overrides::default())
}

fn good(text: &str) -> Config {
    match from(text) {
        Ok(config) => config,
        Err(faults) => panic!("not taken:\n{faults}"),
    }
}

/// The faults of a text, as they are shown.
fn faults(text: &str) -> Vec<String> {
    let faults = from(text).expect_err("taken as right");
    faults.to_string().lines().map(str::to_owned).collect()
}

fn upstream<'a>(config: &'a Config, name: &str) -> &'a Upstream {
    let found = config.upstreams.iter().find(|u| u.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no upstream {name}"))
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}
