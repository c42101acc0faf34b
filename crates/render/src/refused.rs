//! The one list of variables that no secret becomes by accident: whoever may write a secret that some pattern matches
//! could else choose what the app's programs load and run.

/// Beginnings of names: the dynamic loader's, and those of languages and tools whose every variable is one of these.
const PREFIXES: [&str; 12] = [
    "LD_",
    "DYLD_",
    "PYTHON",
    "BASH_FUNC_",
    "BASH_ENV",
    "CORECLR_",
    "COR_",
    "DOTNET_",
    "GIT_",
    "LUA_",
    "MALLOC_",
    "PERL5",
];

/// Whole names.
const NAMES: [&str; 47] = [
    // Where programs and their parts are looked for
    "PATH",
    "CLASSPATH",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "LOCPATH",
    "NIS_PATH",
    "NLSPATH",
    "TMPDIR",
    "TZDIR",
    // How names are looked up
    "HOSTALIASES",
    "LOCALDOMAIN",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    // What shells run, or do not let anybody set
    "BASHOPTS",
    "CDPATH",
    "ENV",
    "EUID",
    "GLOBIGNORE",
    "IFS",
    "OPTIND",
    "PPID",
    "PROMPT_COMMAND",
    "PS1",
    "PS2",
    "PS4",
    "SHELL",
    "SHELLOPTS",
    "UID",
    "_",
    // What languages load at their start
    "ERL_AFLAGS",
    "ERL_FLAGS",
    "ERL_ZFLAGS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PERLLIB",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "RUBYLIB",
    "RUBYOPT",
    "_JAVA_OPTIONS",
    // What TLS libraries load, and where they write the keys of connections
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "SSLKEYLOGFILE",
];

/// Whether a variable of that name changes how programs start.
pub(crate) fn is_refused(variable: &str) -> bool {
    NAMES.contains(&variable) || PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}
