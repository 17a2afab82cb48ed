//! What a tool may reach: host names and addresses with their ports, as the provider wrote them.
//!
//! Always true: a host has one spelling. Names are lower-case letters, digits and hyphens without a final dot; addresses are read only in their usual
//! form, so that no number a resolver would quietly understand (`127.1`, `0x7f000001`, `2130706433`) is ever a name. A rule has at least one port. A rule
//! for a name never matches an address, and a rule for an address never matches a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use super::public::is_public;

/// Longest host name (RFC 1035), without its final dot.
const NAME_BYTES_MAX: usize = 253;
/// Longest part of a host name between two dots.
const LABEL_BYTES_MAX: usize = 63;
/// More ports of one host than any tool speaks to.
pub const PORTS_MAX: usize = 16;
/// More hosts than a person can answer for.
pub const HOSTS_MAX: usize = 64;
/// Rules named in a refusal; more would not be read.
const SHOWN_MAX: usize = 8;

/// One host of a request, in its only spelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

/// Why something cannot be a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// Nothing, or nothing between two dots.
    #[error("is empty or has an empty part")]
    Empty,
    /// Above 253 bytes, or a part above 63.
    #[error("is longer than a host name can be")]
    TooLong,
    /// Letters beyond ASCII.
    #[error("has letters beyond ASCII; write its xn-- form")]
    NotAscii,
    /// Something other than letters, digits and inner hyphens.
    #[error("may hold only letters, digits, hyphens inside a part, and dots")]
    Letters,
    /// Its last part is a number, but it is no address in its usual form.
    #[error("looks like an address but is not written in the usual form, such as 192.0.2.7 or [2001:db8::7]")]
    OddAddress,
}

/// Why a rule of a grant cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// No colon, or nothing after it.
    #[error("no port; write host:port, such as pypi.org:443")]
    NoPort,
    /// Not a number from 1 to 65535, written plainly.
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
    /// Too many ports.
    #[error("more than {PORTS_MAX} ports")]
    Ports,
    /// Not a host.
    #[error("the host {0}")]
    Host(#[from] HostError),
    /// A star that is not the whole first part.
    #[error("a star may only be the whole first part of a name, such as *.example.org")]
    Star,
    /// Everything, or everything below a top-level domain.
    #[error("this grants a whole top-level domain; name at least two parts after the star")]
    TooWide,
    /// An address on which nobody can be called.
    #[error("{0} is not the address of one machine")]
    Nobody(IpAddr),
    /// A name that only ever means this machine.
    #[error("`localhost` names this machine, and a name never leads into a private network; if you mean it, write the address 127.0.0.1")]
    Localhost,
}

/// Which hosts a rule grants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name only.
    Name(String),
    /// Every name below this one, at any depth, but not the name itself.
    Below(String),
    /// This address only, wherever it is: the provider named it, so it may also be a private one.
    Address(IpAddr),
}

/// Hosts and their ports: `pypi.org:443`, `*.example.org:443,8443`, `192.0.2.7:5432` or `[2001:db8::7]:443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostRule {
    host: HostPattern,
    ports: Vec<u16>,
}

impl HostRule {
    /// Which hosts.
    pub const fn host(&self) -> &HostPattern {
        &self.host
    }

    /// Which of their ports, in rising order; never empty.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Whether it leads somewhere that no name could: into a private network, or to this machine.
    pub fn leads_inside(&self) -> bool {
        matches!(self.host, HostPattern::Address(address) if !is_public(address))
    }

    fn names(&self, host: &Host) -> bool {
        match (&self.host, host) {
            (HostPattern::Name(rule), Host::Name(name)) => rule == name,
            (HostPattern::Below(rule), Host::Name(name)) => {
                name.strip_suffix(rule.as_str()).and_then(|below| below.strip_suffix('.')).is_some_and(|below| !below.is_empty())
            }
            (HostPattern::Address(rule), Host::Address(address)) => rule == address,
            _ => false,
        }
    }
}

impl FromStr for HostRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (host, ports) = split_port(text).ok_or(RuleError::NoPort)?;
        let mut ports =
            ports.split(',').map(|text| port(text).ok_or_else(|| RuleError::Port(shown(text)))).collect::<Result<Vec<_>, _>>()?;
        ports.sort_unstable();
        ports.dedup();
        if ports.len() > PORTS_MAX {
            return Err(RuleError::Ports);
        }
        Ok(Self { host: pattern(host)?, ports })
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Name(name) => write!(f, "{name}:")?,
            HostPattern::Below(name) => write!(f, "*.{name}:")?,
            HostPattern::Address(IpAddr::V4(address)) => write!(f, "{address}:")?,
            HostPattern::Address(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
        }
        for (index, port) in self.ports.iter().enumerate() {
            write!(f, "{}{port}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Everything a tool may reach; what no rule names is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkGrant {
    /// The allow-list, in the provider's order.
    pub hosts: Vec<HostRule>,
}

impl NetworkGrant {
    /// Whether some rule grants this host and port, and if not, the reason for the tool's author.
    pub(super) fn allows(&self, host: &Host, port: u16) -> Result<(), String> {
        let named: Vec<&HostRule> = self.hosts.iter().filter(|rule| rule.names(host)).collect();
        if named.iter().any(|rule| rule.ports.contains(&port)) {
            return Ok(());
        }
        if let Some(rule) = named.first() {
            return Err(format!("{} is not granted: the rule {rule} does not name this port", host.with(port)));
        }
        if self.hosts.is_empty() {
            return Err(format!("{} is not granted: this tool may reach nothing", host.with(port)));
        }
        let mut rules: Vec<String> = self.hosts.iter().take(SHOWN_MAX).map(HostRule::to_string).collect();
        if self.hosts.len() > SHOWN_MAX {
            rules.push(format!("and {} more", self.hosts.len().saturating_sub(SHOWN_MAX)));
        }
        Err(format!("{} is not granted: no rule names this host; granted are {}", host.with(port), rules.join(" ")))
    }
}

impl Host {
    /// The host in its only spelling, or why there is none.
    pub(super) fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']').and_then(|inner| inner.parse().ok()).ok_or(HostError::OddAddress)?;
            // A mapped address is another spelling of the older one.
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        name(text).map(Self::Name)
    }

    /// As in a URL, with a port.
    pub(super) fn with(&self, port: u16) -> String {
        match self {
            Self::Name(name) => format!("{name}:{port}"),
            Self::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
        }
    }
}

/// The host and what follows its last colon.
pub(super) fn split_port(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once(':').filter(|(_, port)| !port.is_empty())
}

/// A port written plainly: no sign, no leading zero, not 0.
pub(super) fn port(text: &str) -> Option<u16> {
    let plain = !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn pattern(text: &str) -> Result<HostPattern, RuleError> {
    if let Some(below) = text.strip_prefix("*.") {
        let name = if below.contains('*') { Err(RuleError::Star) } else { name(below).map_err(RuleError::Host) }?;
        return if name.contains('.') { Ok(HostPattern::Below(name)) } else { Err(RuleError::TooWide) };
    }
    if text == "*" {
        return Err(RuleError::TooWide);
    }
    if text.contains('*') {
        return Err(RuleError::Star);
    }
    match Host::parse(text)? {
        Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => Err(RuleError::Localhost),
        Host::Name(name) => Ok(HostPattern::Name(name)),
        // To call 0.0.0.0 is to call this machine, which nobody would guess from reading it.
        Host::Address(address) if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Err(RuleError::Nobody(address))
        }
        Host::Address(address) => Ok(HostPattern::Address(address)),
    }
}

fn name(text: &str) -> Result<String, HostError> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.len() > NAME_BYTES_MAX {
        return Err(HostError::TooLong);
    }
    if !text.is_ascii() {
        return Err(HostError::NotAscii);
    }
    let mut last = "";
    for label in text.split('.') {
        if label.is_empty() {
            return Err(HostError::Empty);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(HostError::TooLong);
        }
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !letters || label.starts_with('-') || label.ends_with('-') {
            return Err(HostError::Letters);
        }
        last = label;
    }
    // Resolvers read such names as addresses: decimal, octal, hexadecimal, and with parts left out.
    let hexadecimal = last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    if hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::OddAddress);
    }
    Ok(text.to_ascii_lowercase())
}

/// A stranger's words in an error: few, and escaped by the error itself.
fn shown(text: &str) -> String {
    text.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<String, RuleError> {
        text.parse::<HostRule>().map(|rule| rule.to_string())
    }

    #[test]
    fn a_rule_has_one_spelling_whatever_the_provider_wrote() {
        for (text, spelt) in [
            ("pypi.org:443", "pypi.org:443"),
            ("PyPI.Org.:443", "pypi.org:443"),
            ("*.Example.org:8443,443,443", "*.example.org:443,8443"),
            ("192.0.2.7:5432", "192.0.2.7:5432"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[2001:DB8:0:0::7]:443", "[2001:db8::7]:443"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
            ("xn--bcher-kva.example:443", "xn--bcher-kva.example:443"),
            ("db:5432", "db:5432"),
        ] {
            assert_eq!(rule(text).as_deref(), Ok(spelt), "{text}");
        }
    }

    #[test]
    fn a_rule_that_means_too_much_or_nothing_is_refused_with_its_reason() {
        let long = format!("{}:1", vec!["a".repeat(63); 4].join("."));
        let long_label = format!("{}.org:1", "a".repeat(64));
        let ports = (1..=17).map(|n: u16| n.to_string()).collect::<Vec<_>>().join(",");
        for (text, error) in [
            ("pypi.org", RuleError::NoPort),
            ("pypi.org:", RuleError::NoPort),
            ("", RuleError::NoPort),
            ("a.org:0", RuleError::Port("0".into())),
            ("a.org:65536", RuleError::Port("65536".into())),
            ("a.org:+80", RuleError::Port("+80".into())),
            ("a.org:080", RuleError::Port("080".into())),
            ("a.org:80,", RuleError::Port(String::new())),
            ("a.org:80 ", RuleError::Port("80 ".into())),
            (&format!("a.org:{ports}"), RuleError::Ports),
            (":443", RuleError::Host(HostError::Empty)),
            ("a..org:1", RuleError::Host(HostError::Empty)),
            ("a.org..:1", RuleError::Host(HostError::Empty)),
            (&long, RuleError::Host(HostError::TooLong)),
            (&long_label, RuleError::Host(HostError::TooLong)),
            ("b\u{fc}cher.example:1", RuleError::Host(HostError::NotAscii)),
            ("user@a.org:1", RuleError::Host(HostError::Letters)),
            ("-a.org:1", RuleError::Host(HostError::Letters)),
            ("a_b.org:1", RuleError::Host(HostError::Letters)),
            ("https://a.org:443", RuleError::Host(HostError::Letters)),
            ("2001:db8::7:443", RuleError::Host(HostError::Letters)),
            ("[fe80::1%25eth0]:1", RuleError::Host(HostError::OddAddress)),
            ("[192.0.2.7]:1", RuleError::Host(HostError::OddAddress)),
            ("*:443", RuleError::TooWide),
            ("*.org:443", RuleError::TooWide),
            ("a*.example.org:443", RuleError::Star),
            ("*.*.example.org:443", RuleError::Star),
            ("*.0.0.1:443", RuleError::Host(HostError::OddAddress)),
            ("0.0.0.0:80", RuleError::Nobody(Ipv4Addr::UNSPECIFIED.into())),
            ("255.255.255.255:80", RuleError::Nobody(Ipv4Addr::BROADCAST.into())),
            ("[ff02::1]:80", RuleError::Nobody("ff02::1".parse().unwrap())),
            ("localhost:80", RuleError::Localhost),
            ("x.localhost:80", RuleError::Localhost),
        ] {
            assert_eq!(rule(text), Err(error), "{text}");
        }
    }

    #[test]
    fn only_a_rule_for_an_address_can_lead_inside() {
        for (text, inside) in [("10.0.0.1:1", true), ("[fd00::1]:1", true), ("8.8.8.8:1", false), ("db:1", false), ("*.a.b:1", false)] {
            assert_eq!(text.parse::<HostRule>().unwrap().leads_inside(), inside, "{text}");
        }
    }

    #[test]
    fn no_number_that_a_resolver_takes_for_an_address_is_a_name() {
        for text in ["2130706433", "0x7f000001", "0X7F.1", "127.1", "0177.0.0.1", "127.0.0.01", "1.2.3.4.5", "127.0.0.1.", "a.0x1", "0x"] {
            assert_eq!(Host::parse(text), Err(HostError::OddAddress), "{text}");
        }
        assert_eq!(Host::parse("0x7f.example.org"), Ok(Host::Name("0x7f.example.org".into())));
    }

    #[test]
    fn a_star_grants_names_below_it_at_any_depth_and_nothing_else() {
        let grant = NetworkGrant { hosts: vec!["*.example.org:443".parse().unwrap(), "10.0.0.1:80".parse().unwrap()] };
        let allows = |host: &str, port| grant.allows(&Host::parse(host).unwrap(), port);
        assert_eq!(allows("a.example.org", 443), Ok(()));
        assert_eq!(allows("a.b.EXAMPLE.org.", 443), Ok(()));
        assert_eq!(allows("[::ffff:10.0.0.1]", 80), Ok(()));
        for (host, port) in [("example.org", 443), ("badexample.org", 443), ("a.example.org.evil.org", 443), ("10.0.0.2", 80)] {
            let why = allows(host, port).unwrap_err();
            assert!(why.contains("no rule names this host; granted are *.example.org:443 10.0.0.1:80"), "{why}");
        }
        assert_eq!(
            allows("a.example.org", 80).unwrap_err(),
            "a.example.org:80 is not granted: the rule *.example.org:443 does not name this port"
        );
        assert!(NetworkGrant::default().allows(&Host::Name("a".into()), 1).unwrap_err().contains("may reach nothing"));
    }

    #[test]
    fn a_refusal_stays_short_however_long_the_grant() {
        let hosts = (0..HOSTS_MAX).map(|n| format!("h{n}.example:443").parse().unwrap()).collect();
        let why = NetworkGrant { hosts }.allows(&Host::Name("x".into()), 1).unwrap_err();
        assert!(why.ends_with("h7.example:443 and 56 more"), "{why}");
    }
}
