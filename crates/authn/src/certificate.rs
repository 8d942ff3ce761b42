//! What a certificate says of itself, as far as the chain check does not tell: names, terms, and what its key is for.
//!
//! Nothing here is a proof: whoever uses it has the chain verified too. Only names in their proper encoding count, and a
//! name that is malformed spoils the certificate, so that no other reader can see other names in it than we do.

use crate::der::{self, Malformed, Reader};
use claviger_domain::Timestamp;
use std::net::IpAddr;

// Object identifiers as DER has them: id-ce (RFC 5280 §4.2.1) and id-kp-clientAuth.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
pub(crate) const ANY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// A certificate's own words.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Extensions exist only in version 3.
    is_version_3: bool,
    is_ca: bool,
    key_usage: Option<KeyUsage>,
    /// Whether the extended key usages, where given, include clients.
    pub(crate) for_clients: bool,
    pub(crate) names: Names<'a>,
}

/// Subject alternative names by kind. Common names are no names.
#[derive(Debug, Default)]
pub(crate) struct Names<'a> {
    pub(crate) dns: Vec<&'a str>,
    pub(crate) ip: Vec<IpAddr>,
    pub(crate) uri: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy)]
struct KeyUsage {
    key_cert_sign: bool,
    crl_sign: bool,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate without verifying it.
    pub(crate) fn parse(certificate: &'a [u8]) -> Result<Self, Malformed> {
        let mut outer = Reader::new(der::only(certificate, der::SEQUENCE)?);
        let mut body = Reader::new(outer.expect(der::SEQUENCE)?);
        let version = body.optional(der::CONTEXT_SPECIFIC | der::CONSTRUCTED)?;
        body.expect(der::INTEGER)?;
        let [_algorithm, _issuer] = [body.expect(der::SEQUENCE)?, body.expect(der::SEQUENCE)?];
        let mut validity = Reader::new(body.expect(der::SEQUENCE)?);
        let [_subject, _key] = [body.expect(der::SEQUENCE)?, body.expect(der::SEQUENCE)?];
        let mut read = Self {
            not_before: der::time(&mut validity)?,
            not_after: der::time(&mut validity)?,
            is_version_3: version == Some(&[der::INTEGER, 1, 2]),
            is_ca: false,
            key_usage: None,
            for_clients: true,
            names: Names::default(),
        };
        validity.end()?;
        let _unique_ids = [body.optional(der::CONTEXT_SPECIFIC | 1)?, body.optional(der::CONTEXT_SPECIFIC | 2)?];
        if let Some(extensions) = body.optional(der::CONTEXT_SPECIFIC | der::CONSTRUCTED | 3)? {
            read.read_extensions(der::only(extensions, der::SEQUENCE)?)?;
        }
        body.end()?;
        Ok(read)
    }

    /// Whether this certificate's key may sign others. Version 1 could not say so; only a root can be that old.
    pub(crate) fn may_sign_certificates(&self) -> bool {
        let usage_allows = self.key_usage.is_none_or(|u| u.key_cert_sign);
        !self.is_version_3 || (self.is_ca && usage_allows)
    }

    /// Whether it claims any right to sign certificates or revocation lists (X509-SVID §5.2).
    pub(crate) fn claims_to_sign(&self) -> bool {
        self.is_ca || self.key_usage.is_some_and(|u| u.key_cert_sign || u.crl_sign)
    }

    fn read_extensions(&mut self, list: &'a [u8]) -> Result<(), Malformed> {
        let mut extensions = Reader::new(list);
        let mut seen = Vec::new();
        while !extensions.is_empty() {
            let mut extension = Reader::new(extensions.expect(der::SEQUENCE)?);
            let id = extension.expect(der::OID)?;
            extension.optional(der::BOOLEAN)?;
            let value = extension.expect(der::OCTET_STRING)?;
            extension.end()?;
            if seen.contains(&id) {
                return Err(Malformed);
            }
            seen.push(id);
            self.read_extension(id, value)?;
        }
        Ok(())
    }

    fn read_extension(&mut self, id: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        match id {
            KEY_USAGE => self.key_usage = Some(key_usage(value)?),
            SUBJECT_ALT_NAME => self.names = names(value)?,
            BASIC_CONSTRAINTS => self.is_ca = is_ca(value)?,
            EXTENDED_KEY_USAGE => self.for_clients = for_clients(value)?,
            _ => {}
        }
        Ok(())
    }
}

fn key_usage(value: &[u8]) -> Result<KeyUsage, Malformed> {
    let [unused, bits @ ..] = der::only(value, der::BIT_STRING)? else { return Err(Malformed) };
    if *unused > 7 {
        return Err(Malformed);
    }
    // Bit 0 is the highest of the first byte; keyCertSign is bit 5, cRLSign bit 6 (RFC 5280 §4.2.1.3).
    let first = bits.first().copied().unwrap_or(0);
    Ok(KeyUsage { key_cert_sign: first & 0x04 != 0, crl_sign: first & 0x02 != 0 })
}

fn is_ca(value: &[u8]) -> Result<bool, Malformed> {
    let mut constraints = Reader::new(der::only(value, der::SEQUENCE)?);
    let is_ca = match constraints.optional(der::BOOLEAN)? {
        None | Some([0]) => false,
        Some([0xff]) => true,
        Some(_) => return Err(Malformed),
    };
    constraints.optional(der::INTEGER)?;
    constraints.end()?;
    Ok(is_ca)
}

fn for_clients(value: &[u8]) -> Result<bool, Malformed> {
    let mut purposes = Reader::new(der::only(value, der::SEQUENCE)?);
    let mut found = false;
    while !purposes.is_empty() {
        let purpose = purposes.expect(der::OID)?;
        found |= purpose == CLIENT_AUTH || purpose == ANY_USAGE;
    }
    Ok(found)
}

fn names(value: &[u8]) -> Result<Names<'_>, Malformed> {
    let mut list = Reader::new(der::only(value, der::SEQUENCE)?);
    let mut names = Names::default();
    while !list.is_empty() {
        let (tag, contents) = list.element()?;
        // An element of another class is none of the kinds that exist, whatever its number (contract knox §5, 2026 rule).
        if tag & der::CLASS_BITS != der::CONTEXT_SPECIFIC {
            continue;
        }
        match (tag & 0x1f, tag & der::CONSTRUCTED != 0) {
            (2, false) => names.dns.push(ascii(contents)?),
            (6, false) => names.uri.push(ascii(contents)?),
            (7, false) => names.ip.push(address(contents)?),
            (2 | 6 | 7, true) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(names)
}

fn ascii(contents: &[u8]) -> Result<&str, Malformed> {
    if !contents.is_ascii() {
        return Err(Malformed);
    }
    std::str::from_utf8(contents).map_err(|_| Malformed)
}

fn address(contents: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(v4) = <[u8; 4]>::try_from(contents) {
        return Ok(IpAddr::from(v4));
    }
    match <[u8; 16]>::try_from(contents) {
        Ok(v6) => Ok(IpAddr::from(v6).to_canonical()),
        Err(_) => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_count_only_in_their_own_class_and_encoding() {
        let list = |body: &[u8]| [&[der::SEQUENCE, u8::try_from(body.len()).unwrap()], body].concat();
        let of = |body: &[u8]| names(&list(body)).map(|n| (n.dns.len(), n.ip.len(), n.uri.len()));
        assert_eq!(of(b"\x82\x01a\x86\x01b\x87\x04abcd"), Ok((1, 1, 1)));
        assert_eq!(of(b"\x06\x01a\x46\x01a\xc6\x01a\x66\x01a\x86\x01b"), Ok((0, 0, 1)), "the other classes");
        assert_eq!(of(b"\x81\x01a\x88\x01a\xa4\x00\xa0\x00"), Ok((0, 0, 0)), "the other kinds");
        assert_eq!(of(b"\xa6\x03\x16\x01a"), Err(Malformed), "constructed");
        assert_eq!(of(b"\x86\x01\xe9"), Err(Malformed), "not ASCII");
        assert_eq!(of(b"\x87\x05abcde"), Err(Malformed), "five bytes of address");
        assert_eq!(of(b"\x86\x02a"), Err(Malformed), "cut off");
    }
}
