//! Freezing disks and thawing them: step by step, and whatever the backend
//! makes of it.

mod common;
mod faults;
mod image;
mod steps;
