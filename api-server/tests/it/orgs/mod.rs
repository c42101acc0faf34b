mod accounts;
mod acl;
mod bundle;
mod polls;
mod projects;
mod secrets;
