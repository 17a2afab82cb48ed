//! The rows by their letters: A for getting out, B for using up, C for what a run is started with, D for hosts and helpers that lack
//! something. A row is a test named by its number and by the fact that it shows.

mod a_files;
mod a_kernel;
mod a_network;
mod a_processes;
mod a_workspace;
mod b_disk;
mod b_ends;
mod b_limits;
mod b_output;
mod c_input;
mod c_start;
mod d_helper;
mod d_hosts;
