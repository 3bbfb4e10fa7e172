//! How single values are written: lengths of time, sizes, addresses, hosts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;

use super::faults::Wrong;
use super::upstream::HostPort;

/// Longest finite time that is taken; adding it to any date of today stays within what a clock can tell.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);
/// Longest time-out.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

/// A length of time, `Duration::MAX` for `"forever"`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = |what: &str| {
        Wrong::new(
            format!("{text:?} {what}"),
            r#"write a time such as "60s", "5m", "1h 30m", "7d" or "forever""#,
        )
    };
    if text.eq_ignore_ascii_case("forever") {
        return Ok(Duration::MAX);
    }
    let duration = humantime::parse_duration(text).map_err(|_| wrong("is not a length of time"))?;
    if duration > LONGEST {
        return Err(wrong("is more than 100 years"));
    }
    Ok(duration)
}

/// A length of time that ends.
pub(super) fn finite(text: &str) -> Result<Duration, Wrong> {
    match duration(text)? {
        Duration::MAX => Err(Wrong::new(
            "must come to an end",
            r#"write a time such as "60s""#,
        )),
        finite => Ok(finite),
    }
}

/// A time-out: more than nothing, at most a day.
pub(super) fn timeout(text: &str) -> Result<Duration, Wrong> {
    let duration = grace(text)?;
    if duration.is_zero() {
        return Err(Wrong::new(
            "is no time at all",
            r#"write a time such as "20s""#,
        ));
    }
    Ok(duration)
}

/// A time to wait, none included, at most a day.
pub(super) fn grace(text: &str) -> Result<Duration, Wrong> {
    let duration = finite(text)?;
    if duration > LONGEST_TIMEOUT {
        return Err(Wrong::new(
            format!("{text:?} is more than a day"),
            r#"write a time such as "20s""#,
        ));
    }
    Ok(duration)
}

/// A size in bytes, more than none.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    let size = text.parse::<ByteSize>().map(|size| size.as_u64());
    match size {
        Ok(size) if size > 0 && size < u64::MAX => Ok(size),
        _ => Err(Wrong::new(
            format!("{text:?} is not a size"),
            r#"write a size such as "500MiB", "200GiB" or "1.5TiB""#,
        )),
    }
}

/// What `parse` reads, or nothing for `"none"`.
pub(super) fn unless_none<T>(
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> impl Fn(&str) -> Result<Option<T>, Wrong> {
    move |text| {
        if text.eq_ignore_ascii_case("none") {
            return Ok(None);
        }
        parse(text).map(Some).map_err(|mut wrong| {
            wrong.instead.push_str(r#", or "none""#);
            wrong
        })
    }
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.trim().parse().map_err(|_| {
        Wrong::new(
            format!("{text:?} is not an address with a port"),
            r#"write an IP address and a port such as "127.0.0.1:5000", or "0.0.0.0:5000" or "[::]:5000" for all"#,
        )
    })
}

/// A network; an address alone stands for itself.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            Wrong::new(
                format!("{text:?} is not a network"),
                r#"write a network such as "10.0.0.0/8" or "fd00::/8", or an address"#,
            )
        })
}

/// A host name or address, with a port or without.
pub(super) fn host_port(text: &str) -> Result<HostPort, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{text:?} is not a host"),
            r#"write a host such as "auth.example.com", "auth.example.com:8443" or "[fd00::1]:5000""#,
        )
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse::<u16>().ok().filter(|&port| port > 0);
            (host, Some(port.ok_or_else(wrong)?))
        }
        _ => (text, None),
    };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    if !host.bytes().all(is_plain) {
        return Err(wrong());
    }
    let host = url::Host::parse(host).map_err(|_| wrong())?.to_string();
    Ok(HostPort { host, port })
}

/// A host name or address without a port.
pub(super) fn host(text: &str) -> Result<String, Wrong> {
    match host_port(text)? {
        HostPort { host, port: None } => Ok(host),
        HostPort { host, .. } => Err(Wrong::new(
            format!("{text:?} has a port"),
            format!("write {host:?}: it holds for every port"),
        )),
    }
}

/// A path of a file or directory.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    if text.is_empty() || text.contains('\0') {
        return Err(Wrong::new("is empty", "write a path"));
    }
    Ok(text.into())
}

/// Yes or no as a variable of the environment says it.
pub(super) fn yes_or_no(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Wrong::new(
            format!("{text:?} is not true or false"),
            "write true or false",
        )),
    }
}
