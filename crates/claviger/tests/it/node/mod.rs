//! The node agent as a process, with a real server, real files and other local users.

mod faults;
mod knox;
mod restored;
mod serving;
mod stage;
mod steps;
