package policy

// preset compiles the rules that a preset stands for.
func (c *compiler) preset(r *reader, text *ruleText) {
	r.fail(text.preset, "", "there is no preset %q", text.preset.Value)
}
