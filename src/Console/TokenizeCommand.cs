using System.CommandLine;
using System.Text.Json;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Console;

/// <summary>sluice tokenize MODEL (--text TEXT | --file F): a text's token ids.</summary>
internal static class TokenizeCommand
{
    public static Command Create()
    {
        Argument<string> model = new("MODEL") { Description = ModelArguments.ModelText + "; the vocabulary alone will do" };
        Option<string?> text = new("--text") { Description = "The text" };
        Option<string?> file = new("--file") { Description = "A UTF-8 file that holds the text" };
        Option<bool> special = new("--parse-special") { Description = "Texts like <|im_end|> become the special tokens they name" };
        Option<bool> bare = new("--no-bos") { Description = "Without the tokens that the model wants around a text" };
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("tokenize", "Show a text's token ids.") { model, text, file, special, bare, json };
        command.Validators.Add(r =>
        {
            if (r.Has(text) == r.Has(file))
            {
                r.AddError("give one of --text and --file");
            }
        });
        command.SetAction(async (parsed, cancellation) =>
        {
            Tokenizer tokenizer = ModelSource.OpenTokenizer(await ModelArguments.ResolveAsync(parsed.GetValue(model)!, cancellation));
            string content = parsed.GetValue(text) ?? File.ReadAllText(parsed.GetValue(file)!);
            int[] ids = tokenizer.Encode(content, !parsed.GetValue(bare), parsed.GetValue(special));
            if (parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(new TokenizeOutput(ids.Length, ids, [.. ids.Select(tokenizer.NameOf)]), JsonOutput.Lines.TokenizeOutput));
                return 0;
            }

            foreach (int id in ids)
            {
                System.Console.Out.WriteLine($"{id,8}  {tokenizer.NameOf(id).ReplaceLineEndings("\\n")}");
            }

            Terminal.Note($"{ids.Length} tokens");
            return 0;
        });
        return command;
    }
}
