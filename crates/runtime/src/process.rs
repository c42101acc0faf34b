//! Keeps what a process holds in memory out of files.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// No core dumps, and no other process of the same user may attach or read this one's memory. Call it before any
/// secret is read. The hard limit stays as it is, so that a program that we start may get its own limit back.
pub fn harden() -> std::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum,
        },
    )?;
    Ok(())
}

/// How many files and connections this process may have open at a time. Raises the soft limit to the hard one, which is
/// what the soft one is for: it protects programs of another age, which can only name the first 1,024.
pub fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where that is refused, what there is has to do.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// Where a container finds its own limit of memory, in bytes or `max`: of either version of control groups.
const MEMORY_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// How many bytes this process and its neighbours may have before one of them is killed; none: what the machine has.
pub fn memory() -> Option<u64> {
    let mut limits = MEMORY_LIMITS
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    limits.find_map(|text| text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_raised() {
        let files = open_files();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), files);
    }

    #[test]
    fn a_hardened_process_leaves_no_core_dump() {
        harden().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            DumpableBehavior::NotDumpable
        );
    }
}
