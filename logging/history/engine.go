package history

import "strings"

// engine is what keeps the rows.
type engine uint8

const (
	engineMemory engine = iota
	engineFile
	enginePostgres
)

// engineOf returns the engine of a store that was checked.
func engineOf(store string) engine {
	switch {
	case store == "" || store == Memory:
		return engineMemory
	case strings.HasPrefix(store, "sqlite:"):
		return engineFile
	}
	return enginePostgres
}
