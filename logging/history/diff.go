package history

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/policy"
)

// maxDiffLines bounds the documents that are compared line by line: the price
// grows with the product of what differs.
const maxDiffLines = 1000

// diffTexts returns how documents differ, in the unified format, each against
// the one of its name.
func diffTexts(old, now []policy.Text) string {
	var b strings.Builder
	var names []string
	for _, t := range slices.Concat(old, now) {
		if !slices.Contains(names, t.Name) {
			names = append(names, t.Name)
		}
	}
	for _, name := range names {
		before, after := linesOf(old, name), linesOf(now, name)
		if slices.Equal(before, after) {
			continue
		}
		from, to := name, name
		if len(before) == 0 {
			from = "/dev/null"
		}
		if len(after) == 0 {
			to = "/dev/null"
		}
		fmt.Fprintf(&b, "--- %s\n+++ %s\n", from, to)
		writeDiff(&b, before, after)
	}
	return b.String()
}

func linesOf(texts []policy.Text, name string) []string {
	for _, t := range texts {
		if t.Name == name {
			return strings.Split(strings.TrimSuffix(string(t.Data), "\n"), "\n")
		}
	}
	return nil
}

// edit is a line of a diff: ' ', '-' or '+'.
type edit struct {
	op   byte
	text string
}

// writeDiff writes the hunks, with three lines around each change.
func writeDiff(b *strings.Builder, old, now []string) {
	const around = 3
	edits := compare(old, now)
	for i := 0; i < len(edits); {
		if edits[i].op == ' ' {
			i++
			continue
		}
		from := max(i-around, 0)
		to := i
		for j := i; j < len(edits) && j <= to+2*around; j++ {
			if edits[j].op != ' ' {
				to = j
			}
		}
		to = min(to+around+1, len(edits))
		writeHunk(b, edits, from, to)
		i = to
	}
}

func writeHunk(b *strings.Builder, edits []edit, from, to int) {
	var before, after [2]int // lines until the hunk, and in it
	for i, e := range edits[:to] {
		in := 0
		if i >= from {
			in = 1
		}
		if e.op != '+' {
			before[in]++
		}
		if e.op != '-' {
			after[in]++
		}
	}
	start := func(n [2]int) int {
		if n[1] == 0 {
			return n[0]
		}
		return n[0] + 1
	}
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", start(before), before[1], start(after), after[1])
	for _, e := range edits[from:to] {
		b.WriteByte(e.op)
		b.WriteString(e.text)
		b.WriteByte('\n')
	}
}

// compare returns the shortest edit of one text into the other, by the longest
// common subsequence of what lies between their common ends.
func compare(old, now []string) []edit {
	var head, tail []edit
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		head = append(head, edit{' ', old[0]})
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		tail = append(tail, edit{' ', old[len(old)-1]})
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	slices.Reverse(tail)
	return slices.Concat(head, middle(old, now), tail)
}

func middle(old, now []string) []edit {
	var out []edit
	if len(old) > maxDiffLines || len(now) > maxDiffLines {
		for _, l := range old {
			out = append(out, edit{'-', l})
		}
		for _, l := range now {
			out = append(out, edit{'+', l})
		}
		return out
	}
	// common[i][j] is the length of what old[i:] and now[j:] have in common.
	width := len(now) + 1
	common := make([]int32, (len(old)+1)*width)
	for i, line := range slices.Backward(old) {
		for j, other := range slices.Backward(now) {
			if line == other {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		switch {
		case i < len(old) && j < len(now) && old[i] == now[j]:
			out = append(out, edit{' ', old[i]})
			i, j = i+1, j+1
		case j == len(now) || i < len(old) && common[(i+1)*width+j] >= common[i*width+j+1]:
			out = append(out, edit{'-', old[i]})
			i++
		default:
			out = append(out, edit{'+', now[j]})
			j++
		}
	}
	return out
}
