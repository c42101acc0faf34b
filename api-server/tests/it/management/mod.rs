mod applications;
mod configurations;
mod environments;
mod secrets;
