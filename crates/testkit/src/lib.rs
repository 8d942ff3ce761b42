//! Test servers, certificates and clocks for Claviger's tests.
