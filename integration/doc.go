// Package integration tests the product as its users meet it: the built
// binary, real clients, real servers, the examples, and the house's own rules.
//
// A test whose client or privilege is missing on this machine is skipped and
// says what it misses; .ci/packages.txt lists all of them, and CI skips none
// that Debian can provide.
package integration
