//! The node agent as a process, with a real server, real files and other local users.

mod faults;
mod knox;
mod serving;
mod stage;
