//! What a guest meets in its life on real Xen.
//! All scenarios share one lab; the host looks at the disk files itself.

mod changed;
mod complaints;
mod disks;
mod hotplug;
mod input;
mod lives;
mod machine;
mod power;
mod small;
mod toolstack;
