//! The text of `server.conf`: what its `server.federation` says, and how it is changed without
//! touching a byte of anything else.
