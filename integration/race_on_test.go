//go:build race

package integration

// raceOn says that the tests run with the race detector, and so the product
// under test should, too.
const raceOn = true
