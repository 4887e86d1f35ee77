using Sluice.Hub;

namespace Sluice.Tests.Host;

/// <summary>What a reference means, which files it brings, and what the environment sets.</summary>
public sealed class HubSelectionTests
{
    private static readonly string[] Folder = ["README.md", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "consolidated.safetensors", "pytorch_model.bin", "onnx/model.safetensors"];
    private static readonly string[] Quants = ["README.md", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "BF16/m-BF16.gguf", "mmproj-m.gguf"];

    [Theory]
    [InlineData("org/model", "org", "model", "main", null)]
    [InlineData("hf:org/model", "org", "model", "main", null)]
    [InlineData("Org-1/m.2_x@refs/pr/3:dir/a b.gguf", "Org-1", "m.2_x", "refs/pr/3", "dir/a b.gguf")]
    [InlineData("o/m:*Q4_K_M.gguf", "o", "m", "main", "*Q4_K_M.gguf")]
    [InlineData("o/m@v1.0", "o", "m", "v1.0", null)]
    public void Reference_is_read(string text, string owner, string name, string revision, string? file) =>
        Assert.Equal(new HubReference(owner, name, revision, file), HubReference.Parse(text));

    [Theory]
    [InlineData("")]
    [InlineData("model")]
    [InlineData("a/b/c")]
    [InlineData("/b")]
    [InlineData("a/")]
    [InlineData("../b")]
    [InlineData("a/..")]
    [InlineData("a/.b")]
    [InlineData("a\\b/c")]
    [InlineData("a/b@")]
    [InlineData("a/b@../x")]
    [InlineData("a/b@x\ny")]
    [InlineData("a/b:")]
    [InlineData("a/b:../x.gguf")]
    [InlineData("a/b:/etc/passwd")]
    [InlineData("a/b:C:\\x")]
    [InlineData("a/b?x=1")]
    [InlineData("a/b#x")]
    [InlineData("a/b%2e")]
    [InlineData("a/con")]
    [InlineData("https://host/a/b")]
    public void Text_that_is_no_reference_is_refused(string text) =>
        Assert.Equal(HubError.Request, Assert.Throws<HubException>(() => HubReference.Parse(text)).Kind);

    [Fact]
    public void Folder_of_safetensors_brings_what_it_needs() =>
        Assert.Equal(Folder[1..9].Order(), Choose("o/m", Folder, null).Order());

    [Theory]
    [InlineData("o/m:Q4_K_M", "m-Q4_K_M.gguf")]
    [InlineData("o/m:q4_k_s", "m-Q4_K_S.gguf")]
    [InlineData("o/m:BF16", "BF16/m-BF16.gguf")]
    [InlineData("o/m:*BF16*", "BF16/m-BF16.gguf")]
    [InlineData("o/m:m-?4_K_M.gguf", "m-Q4_K_M.gguf")]
    [InlineData("o/m:README.md", "README.md")]
    [InlineData("o/m:Q8_0", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")]
    [InlineData("o/m:m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")]
    public void File_pattern_and_tag_choose(string reference, params string[] expected) =>
        Assert.Equal(expected, Choose(reference, Quants, expected[0]));

    [Fact]
    public void Only_gguf_needs_no_name_and_a_projector_does_not_count() =>
        Assert.Equal(["m.gguf"], Choose("o/m", ["README.md", "m.gguf", "mmproj-m.gguf"], "m.gguf"));

    [Theory]
    [InlineData("o/m", HubError.Request, "m-Q4_K_M.gguf, m-Q4_K_S.gguf")]
    [InlineData("o/m:*Q4*", HubError.Request, "m-Q4_K_M.gguf, m-Q4_K_S.gguf")]
    [InlineData("o/m:Q4_K", HubError.NotFound, "mmproj-m.gguf")]
    [InlineData("o/m:none.gguf", HubError.NotFound, "README.md")]
    public void Choice_that_is_a_persons_lists_the_files(string reference, HubError kind, string lists)
    {
        HubException e = Assert.Throws<HubException>(() => Choose(reference, Quants, null));
        Assert.Equal(kind, e.Kind);
        Assert.Contains(lists, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Missing_part_and_missing_model_are_told()
    {
        Assert.Equal(HubError.NotFound, Assert.Throws<HubException>(() => Choose("o/m", ["m-00001-of-00002.gguf"], null)).Kind);
        Assert.Equal(HubError.Request, Assert.Throws<HubException>(() => Choose("o/m", ["README.md", "pytorch_model.bin"], null)).Kind);
    }

    [Theory]
    [InlineData("abc", "abc", true)]
    [InlineData("abc", "a*", true)]
    [InlineData("abc", "*b*", true)]
    [InlineData("abc", "a?c", true)]
    [InlineData("abc", "a?", false)]
    [InlineData("abc", "*d", false)]
    [InlineData("aXbXc", "a*X*c", true)]
    [InlineData("", "*", true)]
    [InlineData("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "*a*a*a*a*a*a*a*a*a*a*a*c", false)]
    public void Pattern_matches(string path, string pattern, bool matches) => Assert.Equal(matches, HubSelection.Matches(path, pattern));

    [Fact]
    public void Environment_sets_address_token_and_cache()
    {
        using TempFolder home = new();
        Directory.CreateDirectory(home[".cache/huggingface"]);
        File.WriteAllText(home[".cache/huggingface/token"], "hf_file\n");
        Dictionary<string, string> set = new() { ["XDG_CACHE_HOME"] = "relative" };
        HubOptions plain = Read();
        Assert.Equal((HubOptions.DefaultEndpoint, "hf_file", false), (plain.Endpoint.GetLeftPart(UriPartial.Authority), plain.Token, plain.Offline));
        Assert.StartsWith(home["."][..^1], plain.CacheFolder, StringComparison.Ordinal);
        set["HUGGING_FACE_HUB_TOKEN"] = "hf_old";
        Assert.Equal("hf_old", Read().Token);
        set["HF_TOKEN"] = " hf_new ";
        set["HF_ENDPOINT"] = "http://mirror.test:8080/base";
        set["SLUICE_CACHE"] = home["c"];
        set["HF_HUB_OFFLINE"] = "1";
        HubOptions full = Read();
        Assert.Equal(("hf_new", "http://mirror.test:8080/base", home["c"], true), (full.Token, full.Endpoint.AbsoluteUri, full.CacheFolder, full.Offline));
        set["HF_ENDPOINT"] = "ftp://x";
        Assert.Equal(HubError.Request, Assert.Throws<HubException>(Read).Kind);

        HubOptions Read() => HubOptions.Read(set.GetValueOrDefault, home["."][..^2]);
    }

    private static string[] Choose(string reference, string[] files, string? entry)
    {
        HubSelection chosen = HubSelection.Choose(HubReference.Parse(reference), [.. files.Select(f => new HubFile(f, 1, null, null))]);
        Assert.Equal(entry, chosen.Entry);
        return [.. chosen.Files.Select(f => f.Path)];
    }
}
