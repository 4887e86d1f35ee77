using Sluice.Loading;
using Sluice.Models;

namespace Sluice.Tests.Host;

/// <summary>Models in several GGUF files.</summary>
public sealed class GgufModelTests : IDisposable
{
    private readonly TempFolder _folder = new();

    [Theory, InlineData(1, true), InlineData(2, false), InlineData(3, true)]
    public void Any_part_opens_the_whole(int part, bool memoryMap)
    {
        Split();
        using ModelSource source = ModelSource.Open(Part(part), memoryMap);
        Assert.Equal("GGUF v3 in 3 files", source.Format);
        Assert.Equal(11, source.ReadConfig().VocabularySize);
        Assert.Equal(11, source.ReadTokenizer().VocabularySize);
        Assert.Equal(SmallModel.Llama().Tensors.Count, source.Tensors.Count);
        Assert.Equal(Part(3), source.Find("output_norm.weight")!.File);
    }

    [Fact]
    public void A_folder_with_one_model_is_that_model()
    {
        Split();
        File.WriteAllText(_folder["config.json"], "{}");
        using ModelSource source = ModelSource.Open(Path.GetDirectoryName(Part(1))!);
        Assert.Equal("GGUF v3 in 3 files", source.Format);
        SmallModel.Llama().Save(_folder["other.gguf"]);
        Assert.Contains("holds 2 GGUF models", Assert.Throws<ModelFormatException>(() => ModelSource.Open(Path.GetDirectoryName(Part(1))!)).Message);
    }

    [Fact]
    public void A_missing_part_is_named()
    {
        Split();
        File.Delete(Part(2));
        FileNotFoundException error = Assert.Throws<FileNotFoundException>(() => ModelSource.Open(Part(1)));
        Assert.Contains(Part(2), error.Message);
        Assert.Contains("put all parts into one folder", error.Message);
    }

    [Theory]
    [InlineData("split.no", 2u, "is 2, and part 2 of 3 has 1")]
    [InlineData("split.count", 4u, "is 1, and part 2 of 3 has 1")]
    public void A_part_that_is_another_is_named(string key, uint value, string says)
    {
        Split((part, model) =>
        {
            if (part == 2)
            {
                model.Set(key, GgufValue.Of(value));
            }
        });
        Assert.Contains(says, Assert.Throws<ModelFormatException>(() => ModelSource.Open(Part(1))).Message);
    }

    [Fact]
    public void What_does_not_fit_together_is_named()
    {
        Split((part, model) => model.Set("split.tensors.count", GgufValue.Of(part == 1 ? 5 : 0)));
        Assert.Contains("is 5, and the 3 files hold 11 tensors", Assert.Throws<ModelFormatException>(() => ModelSource.Open(Part(1))).Message);
        Split((part, model) => model.Tensor("output_norm.weight", 8));
        Assert.Contains("tensor 'output_norm.weight': stands in", Assert.Throws<ModelFormatException>(() => ModelSource.Open(Part(1))).Message);
        Split();
        File.Move(Part(1), _folder["renamed.gguf"]);
        Assert.Contains("should end in -00001-of-00003.gguf", Assert.Throws<ModelFormatException>(() => ModelSource.Open(_folder["renamed.gguf"])).Message);
    }

    public void Dispose() => _folder.Dispose();

    private string Part(int number) => _folder[$"m-{number:D5}-of-00003.gguf"];

    // Metadata in the first part, tensors in all.
    private void Split(Action<int, SmallModel>? change = null)
    {
        SmallModel whole = SmallModel.Llama();
        for (int part = 1; part <= 3; part++)
        {
            SmallModel model = new();
            if (part == 1)
            {
                model.Metadata.AddRange(whole.Metadata);
            }

            model.Tensors.AddRange(whole.Tensors.Skip((part - 1) * 4).Take(4));
            model.Set("split.no", GgufValue.Of((uint)(part - 1)));
            model.Set("split.count", GgufValue.Of(3u));
            model.Set("split.tensors.count", GgufValue.Of(whole.Tensors.Count));
            change?.Invoke(part, model);
            model.Save(Part(part));
        }
    }
}
