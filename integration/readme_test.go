package integration

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/logging"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// yamlBlocks returns the README's YAML.
func yamlBlocks(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		out = append(out, m[1])
	}
	return out
}

// TestReadmePolicies runs the README's policies and configuration through the
// commands that read them.
func TestReadmePolicies(t *testing.T) {
	var policies, configs int
	for _, text := range yamlBlocks(t) {
		path := filepath.Join(t.TempDir(), "readme.yaml")
		writeFile(t, path, text)
		args := []string{"config", "--config", path}
		if strings.HasPrefix(text, "version:") {
			policies++
			args = []string{"policy", "check", "--strict", path}
		} else {
			configs++
		}
		cmd := exec.Command(binary(t), args...)
		cmd.Env = bareEnv(t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if policies == 0 || configs == 0 {
		t.Errorf("%d policies and %d configurations in the README", policies, configs)
	}
}

// TestReadmeVocabulary holds the README to the words of the flow log.
func TestReadmeVocabulary(t *testing.T) {
	var schema struct {
		Defs map[string]struct{ Enum []string } `json:"$defs"`
	}
	if err := json.Unmarshal(logging.FlowSchema(), &schema); err != nil {
		t.Fatal(err)
	}
	text := readme(t)
	words := slices.Concat(schema.Defs["reason"].Enum, schema.Defs["outcome"].Enum)
	if len(words) < 30 {
		t.Fatalf("the schema has %d words in %v", len(words), slices.Collect(maps.Keys(schema.Defs)))
	}
	for _, w := range words {
		if !strings.Contains(text, "`"+w+"`") {
			t.Errorf("the README does not tell of %s", w)
		}
	}
}

// TestReadmeCommands holds the README's table of commands to the binary's.
func TestReadmeCommands(t *testing.T) {
	cmd := exec.Command(binary(t), "--help")
	cmd.Env = bareEnv(t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	text := readme(t)
	commands := regexp.MustCompile(`(?m)^  sallyport ((?:policy )?[a-z]+)`).FindAllStringSubmatch(string(out), -1)
	if len(commands) < 8 {
		t.Fatalf("%d commands in the help:\n%s", len(commands), out)
	}
	for _, m := range commands {
		if !strings.Contains(text, "`sallyport "+m[1]) {
			t.Errorf("the README does not tell of sallyport %s", m[1])
		}
	}
}
