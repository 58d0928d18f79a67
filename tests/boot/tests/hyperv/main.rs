//! Our own Hyper-V host: on this machine's KVM where it does, else in the lab's KVM
//! host.

mod guests;
mod tiny;
