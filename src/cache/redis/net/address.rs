//! How an address is parsed: one server, a primary that sentinels watch, or a cluster.

use crate::cache::redis::net::connector::OwnConnector;
use crate::cache::redis::net::cryptography::has_provider;
use ::redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisError,
    io::tcp::TcpSettings,
};
use std::fmt;
use url::form_urlencoded;

/// Where Redis is, and whether it is one server, watched by sentinels, or a cluster.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// One server.
    One(Server),
    /// A primary whose address the sentinels know.
    Sentinel {
        /// The sentinels, each with its own connection settings.
        sentinels: Vec<Server>,
        service: String,
        /// The connection settings of the primary. Its host is a placeholder.
        primary: Server,
    },
    /// A cluster. Any of the seeds knows all primaries.
    Cluster { seeds: Vec<Server> },
}

/// How to connect to one server.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) info: ConnectionInfo,
    pub(crate) tls: Option<Tls>,
    pub(crate) connector: OwnConnector,
}

/// A host and a port.
pub(crate) type HostPort = (String, u16);

/// The certificates for TLS, as PEM.
#[derive(Clone, Default)]
#[cfg_attr(
    not(feature = "redis-tls"),
    allow(dead_code, reason = "only TLS reads them")
)]
pub(crate) struct Tls {
    /// The only certificate authority to trust. Without it, TLS uses the platform's root
    /// certificates.
    pub(crate) ca: Option<Vec<u8>>,
    /// The client's certificate and key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

/// The kind of address that the scheme names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Alone,
    BySentinels,
    InCluster,
}

/// Why an address is invalid. The text repeats no part of the address, because a secret may stand
/// in the wrong place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    #[error(
        "an address begins with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, \
         redis+cluster:// or rediss+cluster://"
    )]
    Scheme,
    #[error("{0}")]
    Redis(String),
    #[error("the address names no sentinel's service: redis+sentinel://host:26379/service")]
    NoService,
    #[error("a cluster has only the database 0; remove the text after its hosts")]
    Database,
    #[error("the address has an unknown parameter; {0}")]
    Parameter(&'static str),
    #[error("`cert` and `key` go together; name the client's certificate and its key, both as PEM")]
    HalfClient,
    #[error("`{parameter}` names a file that cannot be read: {source}")]
    File {
        parameter: &'static str,
        source: std::io::Error,
    },
    #[error("`{0}` names a file without a {1} in PEM")]
    NotPem(&'static str, &'static str),
    #[error("rediss:// needs the feature `redis-tls` of the crate layercache")]
    #[cfg_attr(feature = "redis-tls", allow(dead_code, reason = "it is on"))]
    NoTls,
    #[error(
        "TLS needs a provider of cryptography, and the process has none: call \
         `rustls::crypto::aws_lc_rs::default_provider().install_default()`, or the same of \
         `rustls::crypto::ring`, before the cache is made"
    )]
    NoProvider,
}

impl From<RedisError> for AddressError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let why = match error.detail() {
            Some(detail) => text.strip_suffix(detail).unwrap_or("it cannot be one"),
            None => &text,
        };
        Self::Redis(why.trim_end_matches([':', ' ']).to_owned())
    }
}

/// The parameters after the `?`.
#[derive(Default)]
struct Parameters {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

impl Address {
    /// Parses an address, and reads the certificate files that it names.
    pub(crate) fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        if matches!(scheme, "unix" | "redis+unix" | "valkey+unix") {
            return Ok(Self::One(Server::new(url, None)?));
        }
        let (plain, kind) = match scheme.split_once('+') {
            None => (scheme, Scheme::Alone),
            Some((plain, "sentinel")) => (plain, Scheme::BySentinels),
            Some((plain, "cluster")) => (plain, Scheme::InCluster),
            Some(_) => return Err(AddressError::Scheme),
        };
        let is_secure = match plain {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(AddressError::Scheme),
        };
        if is_secure && cfg!(not(feature = "redis-tls")) {
            return Err(AddressError::NoTls);
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let parameters = Parameters::parse(query, is_secure, kind == Scheme::BySentinels)?;
        let tls = is_secure.then(|| parameters.tls()).transpose()?;
        if is_secure && !has_provider() {
            return Err(AddressError::NoProvider);
        }
        let server = |user: &str, host: &str, database: &str| {
            Server::new(&format!("{plain}://{user}{host}/{database}"), tls.clone())
        };
        match kind {
            Scheme::Alone => Ok(Self::One(server(&user, hosts, path)?)),
            Scheme::BySentinels => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(AddressError::NoService);
                }
                let sentinel = |host: &str| {
                    let sentinel = server("", &with_port(host, 26379), "")?;
                    Ok(parameters.sentinel(sentinel))
                };
                let sentinels: Result<_, AddressError> = hosts.split(',').map(sentinel).collect();
                Ok(Self::Sentinel {
                    sentinels: sentinels?,
                    service: service.to_owned(),
                    primary: server(&user, "primary.invalid", database)?,
                })
            }
            Scheme::InCluster => {
                if !matches!(path, "" | "0") {
                    return Err(AddressError::Database);
                }
                let seeds: Result<_, _> = hosts
                    .split(',')
                    .map(|host| server(&user, host, ""))
                    .collect();
                Ok(Self::Cluster { seeds: seeds? })
            }
        }
    }
}

impl Address {
    /// Makes the connector open all connections.
    pub(crate) fn with_connector(mut self, connector: &OwnConnector) -> Self {
        let (servers, primary) = match &mut self {
            Self::One(server) => (&mut [][..], Some(server)),
            Self::Sentinel {
                sentinels, primary, ..
            } => (&mut sentinels[..], Some(primary)),
            Self::Cluster { seeds } => (&mut seeds[..], None),
        };
        for server in servers.iter_mut().chain(primary) {
            server.connector = connector.clone();
        }
        self
    }
}

/// Adds the port to a host that has none.
fn with_port(host: &str, port: u16) -> String {
    // An IPv6 address is in brackets: a colon inside them does not begin a port.
    match host.rsplit_once(':') {
        Some((_, last)) if !last.contains(']') => host.to_owned(),
        _ => format!("{host}:{port}"),
    }
}

impl Parameters {
    fn parse(query: &str, is_secure: bool, has_sentinels: bool) -> Result<Self, AddressError> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match (&*name, is_secure, has_sentinels) {
                ("ca", true, _) => &mut parameters.ca,
                ("cert", true, _) => &mut parameters.cert,
                ("key", true, _) => &mut parameters.key,
                ("sentinel_user", _, true) => &mut parameters.sentinel_user,
                ("sentinel_password", _, true) => &mut parameters.sentinel_password,
                (_, true, false) => return unknown("known are `ca`, `cert` and `key`"),
                (_, _, true) => {
                    let known = "known are `sentinel_user`, `sentinel_password`, and with rediss \
                                 `ca`, `cert` and `key`";
                    return unknown(known);
                }
                (_, false, false) => return unknown("certificates are for rediss://"),
            };
            *place = Some(value.into_owned());
        }
        Ok(parameters)
    }

    fn tls(&self) -> Result<Tls, AddressError> {
        let read = |parameter, path: &str| {
            let (mark, what) = match parameter {
                "key" => ("PRIVATE KEY-----", "private key"),
                _ => ("-----BEGIN CERTIFICATE-----", "certificate"),
            };
            let file = std::fs::read(path);
            let file = file.map_err(|source| AddressError::File { parameter, source })?;
            if String::from_utf8_lossy(&file).contains(mark) {
                Ok(file)
            } else {
                Err(AddressError::NotPem(parameter, what))
            }
        };
        let ca = self.ca.as_deref().map(|path| read("ca", path));
        let client = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read("cert", cert)?, read("key", key)?)),
            (None, None) => None,
            _ => return Err(AddressError::HalfClient),
        };
        Ok(Tls {
            ca: ca.transpose()?,
            client,
        })
    }

    fn sentinel(&self, mut sentinel: Server) -> Server {
        let mut settings = sentinel.info.redis_settings().clone();
        if let Some(user) = &self.sentinel_user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.sentinel_password {
            settings = settings.set_password(password);
        }
        sentinel.info = sentinel.info.set_redis_settings(settings);
        sentinel
    }
}

const fn unknown<T>(known: &'static str) -> Result<T, AddressError> {
    Err(AddressError::Parameter(known))
}

impl Server {
    fn new(url: &str, tls: Option<Tls>) -> Result<Self, AddressError> {
        let info = url.into_connection_info()?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let server = Self {
            info,
            tls,
            connector: OwnConnector::default(),
        };
        // Makes a client once, so that invalid certificates are an error of the settings.
        server.client()?;
        Ok(server)
    }

    /// Returns this server with RESP3. Published messages then come in order with the replies on
    /// one connection.
    pub(crate) fn with_pushes(mut self) -> Self {
        let settings = self.info.redis_settings().clone();
        let settings = settings.set_protocol(ProtocolVersion::RESP3);
        self.info = self.info.set_redis_settings(settings);
        self
    }
}

impl Server {
    /// Returns these connection settings for another host and port.
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        let mut server = self.clone();
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: None,
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        server.info = server.info.set_addr(addr);
        server
    }

    /// Returns the server's host and port. For a socket that is its path and 0.
    pub(crate) fn place(&self) -> HostPort {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), *port)
            }
            other => (other.to_string(), 0),
        }
    }
}

/// Compares host and port only: all servers of an address have the same user.
impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.info.addr() == other.info.addr()
    }
}

/// Shows host and port only: the user's name is kept beside the password.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.info.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(servers: &[Server]) -> String {
        format!("{servers:?}")
    }

    #[test]
    fn an_address_of_one_server() {
        let Ok(Address::One(server)) = Address::parse("redis://me:p%40ss@cache:7000/3") else {
            panic!("not one server");
        };
        assert_eq!(format!("{server:?}"), "cache:7000");
        let settings = server.info.redis_settings();
        assert_eq!(settings.username(), Some("me"));
        assert_eq!(settings.password(), Some("p@ss"));
        assert_eq!(settings.db(), 3);
        let Ok(Address::One(server)) = Address::parse("unix:///run/redis.sock?user=me&pass=x&db=2")
        else {
            panic!("not one server");
        };
        assert_eq!(format!("{server:?}"), "/run/redis.sock");
        assert_eq!(server.info.redis_settings().db(), 2);
    }

    #[test]
    fn an_address_of_sentinels_has_a_service_and_their_own_passwords() {
        let url = "redis+sentinel://me:secret@a,b:7001,[::1]/main/4?sentinel_password=other";
        let Ok(Address::Sentinel {
            sentinels,
            service,
            primary,
        }) = Address::parse(url)
        else {
            panic!("not sentinels");
        };
        assert_eq!(hosts(&sentinels), "[a:26379, b:7001, ::1:26379]");
        assert_eq!(service, "main");
        let settings = primary.info.redis_settings();
        assert_eq!((settings.password(), settings.db()), (Some("secret"), 4));
        let settings = sentinels[0].info.redis_settings();
        assert_eq!(
            (settings.password(), settings.username()),
            (Some("other"), None)
        );
    }

    #[test]
    fn an_address_of_a_cluster_has_seeds() {
        let Ok(Address::Cluster { seeds }) = Address::parse("redis+cluster://:x@a:1,b:2") else {
            panic!("not a cluster");
        };
        assert_eq!(hosts(&seeds), "[a:1, b:2]");
        assert_eq!(seeds[1].info.redis_settings().password(), Some("x"));
    }

    #[test]
    fn an_error_says_why_the_address_is_invalid_and_shows_no_secret() {
        for (url, why) in [
            ("cache:6379", "begins with redis://"),
            ("http://:secret@cache", "begins with redis://"),
            ("redis+proxy://:secret@cache", "begins with redis://"),
            ("redis://:secret@cache:port", "URL"),
            ("redis://:secret@cache/main", "database"),
            ("redis+sentinel://:secret@a,b", "service"),
            ("redis+cluster://:secret@a/secret", "database"),
            (
                "redis://:secret@a?ca=/secret",
                "certificates are for rediss://",
            ),
            ("redis+sentinel://:secret@a/m?secret=secret", "known are"),
        ] {
            let error = match Address::parse(url) {
                Err(error) => error.to_string(),
                Ok(_) => panic!("{url}"),
            };
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn certificates_are_read_when_the_address_is_parsed() {
        for (query, why) in [
            ("ca=/nowhere/ca.pem", "`ca` names a file"),
            ("cert=/nowhere/cert.pem", "`cert` and `key` go together"),
            ("sentinel_user=x", "unknown parameter"),
        ] {
            let error = match Address::parse(&format!("rediss://:secret@cache?{query}")) {
                Err(error) => error.to_string(),
                Ok(_) => panic!("{query}"),
            };
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
