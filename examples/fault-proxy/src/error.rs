//! What can go wrong with a request, in Toxiproxy's words where it has some: its clients may look
//! at them.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why a request wasn't done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The body isn't what it should be.
    BadRequestBody(String),
    /// A field that has no default is missing or empty.
    MissingField(&'static str),
    /// There is no proxy of that name.
    ProxyNotFound,
    /// There is one of that name.
    ProxyAlreadyExists,
    /// A direction that is neither.
    InvalidStream,
    /// A type of toxic that there isn't.
    InvalidToxicType,
    /// There is a toxic of that name.
    ToxicAlreadyExists,
    /// There is no toxic of that name.
    ToxicNotFound,
    /// A proxy may listen on loopback alone.
    NotLoopback(String),
    /// As many as there may be.
    TooMany(&'static str, usize),
    /// A port can't be had.
    Listen(SocketAddr, io::Error),
}

impl Error {
    /// The status that tells of it.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequestBody(_)
            | Self::MissingField(_)
            | Self::InvalidStream
            | Self::InvalidToxicType
            | Self::NotLoopback(_)
            | Self::TooMany(..) => 400,
            Self::ProxyNotFound | Self::ToxicNotFound => 404,
            Self::ProxyAlreadyExists | Self::ToxicAlreadyExists => 409,
            Self::Listen(..) => 500,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequestBody(why) => write!(f, "bad request body: {why}"),
            Self::MissingField(field) => write!(f, "missing required field: {field}"),
            Self::ProxyNotFound => f.write_str("proxy not found"),
            Self::ProxyAlreadyExists => f.write_str("proxy already exists"),
            Self::InvalidStream => f.write_str("stream was invalid, can be either upstream or downstream"),
            Self::InvalidToxicType => f.write_str("invalid toxic type"),
            Self::ToxicAlreadyExists => f.write_str("toxic already exists"),
            Self::ToxicNotFound => f.write_str("toxic not found"),
            Self::NotLoopback(listen) => {
                write!(
                    f,
                    "listen must be a loopback address and a port (127.0.0.1:0 for any), got {listen:?}"
                )
            }
            Self::TooMany(what, most) => write!(f, "at most {most} {what}"),
            Self::Listen(address, error) => write!(f, "can't listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for Error {}
