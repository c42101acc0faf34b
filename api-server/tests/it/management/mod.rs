mod applications;
mod configurations;
mod environments;
mod lists;
mod preconditions;
mod secrets;
mod versions;
