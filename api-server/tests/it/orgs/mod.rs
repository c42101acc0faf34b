mod accounts;
mod acl;
mod bundle;
mod people;
mod polls;
mod projects;
mod secrets;
